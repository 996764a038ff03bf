"""What the tests stand on: real servers, started the way the embedded stack starts them."""
