"""Every answer of /authorize/{service}, over HTTP, from a gate that knows only what the registry's stream said."""
