"""One iteration: planned, credited, and what it leaves to later ones."""
