"""The service: paths, who may ask, limits, probes, processes."""
