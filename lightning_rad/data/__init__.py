"""Reading, a straight line: order, source, decode, views, batch; composed by stream."""
