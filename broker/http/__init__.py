"""The platform's side: the control API over HTTP."""
