"""Search: which laws to apply to an e-graph, under limits of nodes, bytes and seconds. Free of torch."""
