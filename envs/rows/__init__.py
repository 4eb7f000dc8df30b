"""Rows of users' data: read from files or functions, their forms and fields."""
