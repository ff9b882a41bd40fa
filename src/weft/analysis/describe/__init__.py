"""What applies to a service or a workload, from which resource, file and line."""
