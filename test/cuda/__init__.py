"""What only a GPU has: streams, graphs, fused kernels, backward passes in threads of their own."""
