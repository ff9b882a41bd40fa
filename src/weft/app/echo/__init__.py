"""The test backend: says what it was asked, over HTTP/1.1, HTTP/2, gRPC, WebSocket, TLS, TCP and UDP."""
