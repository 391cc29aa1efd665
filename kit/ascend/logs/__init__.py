"""Logs of ATC and ACL, read and explained."""
