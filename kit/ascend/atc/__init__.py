"""The ``atc`` command: typed options, its rules, and what becomes of commands from articles."""
