"""The API of pubs: all that their pages can do."""
