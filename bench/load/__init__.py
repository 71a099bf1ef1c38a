"""The load: viewers, publishers, members, and their sockets."""
