"""The SPIFFE Workload API on this host: applications fetch their own identity, told apart by the kernel."""
