"""Resources to ``ir.Proxy``: pure, memoised by the inputs that each unit was really given."""
