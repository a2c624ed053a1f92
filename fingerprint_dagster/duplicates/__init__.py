"""What in a collection is a copy of what: joined with itself, clustered, reviewed by people, reported, and watched."""
