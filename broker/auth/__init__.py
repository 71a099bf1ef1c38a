"""Authentication of a connection: tokens, grants, tickets."""
