"""The same work on many devices: processes of one machine, or Ray over a cluster (see CLUSTER.md)."""
