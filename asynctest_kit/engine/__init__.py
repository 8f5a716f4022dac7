"""pytest items in, events out. Knows no Docker, no database and no terminal."""
