"""What lies between the settings of a user and a run that may start."""
