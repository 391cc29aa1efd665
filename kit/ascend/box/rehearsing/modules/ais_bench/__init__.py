"""FAKE ais_bench, on top of the FAKE acl."""

__fake__ = "FAKE ais_bench of the migration notebook kit: it runs on this machine's processor"
