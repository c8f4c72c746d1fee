"""HTTP/JSON in front of the gateway's own gRPC socket, made from the options on its RPCs."""
