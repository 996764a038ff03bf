"""The events, one module and one union per service. Facts in the past tense; nothing secret and nothing personal in any."""
