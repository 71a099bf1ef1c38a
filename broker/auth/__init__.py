"""Who a connection is: tokens, grants, tickets."""
