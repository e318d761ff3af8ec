"""The desk: what a marketer does, as pages in a browser, at `/desk` of the service."""
