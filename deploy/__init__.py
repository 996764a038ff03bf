"""How Tollbook is run: the embedded stack of real servers, the services as processes, and what stands in front of them."""
