"""JetStream, the way every service uses it: declaring streams, relaying a log, following streams with exactly-once effects,
and keeping KV buckets for dashboards."""
