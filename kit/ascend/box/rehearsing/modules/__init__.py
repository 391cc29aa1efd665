"""On PYTHONPATH in a rehearsal: the FAKE modules ``acl`` and ``ais_bench``."""
