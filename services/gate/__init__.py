"""The door: decides whether a call may pass, and records each one that did, before it is answered."""
