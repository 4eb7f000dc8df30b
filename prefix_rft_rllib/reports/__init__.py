"""What is read out of a run, finished or not; knows neither Ray nor torch."""
