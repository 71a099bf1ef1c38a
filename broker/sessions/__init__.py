"""What one connection means: dispatch of frames, joining, replies."""
