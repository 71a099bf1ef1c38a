"""Data structures without knowledge of rooms or users."""
