"""What every room may use: checks of ranges, random draws, text; imports no room."""
