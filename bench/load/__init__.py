"""Load generator: viewers, publishers, and their sockets."""
