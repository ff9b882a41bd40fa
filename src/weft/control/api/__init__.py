"""The API, under the conventions of Kubernetes: kubectl and its client libraries work against it."""
