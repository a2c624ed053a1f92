-- Beside Dagster's own database, which the image makes.
CREATE DATABASE fingerprints;
