"""What the audit stands on: the typed graph, costs, defects, findings."""
