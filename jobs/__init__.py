"""The job, its executor, the schedule and the sensors; and what drives runs from the command line."""
