"""Envoy's configuration protocol, served: incremental (delta) ADS over one mTLS stream for each proxy."""
