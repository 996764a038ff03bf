"""Review: service apps go live only after somebody has decided that they may. See README.md."""
