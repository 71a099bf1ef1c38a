"""Sessions: dispatch of frames, joining, replies."""
