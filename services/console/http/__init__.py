"""The HTTP edge: what stands before every request, and one module of routes per resource."""
