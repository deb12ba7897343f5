"""Reading rows: what names stand for, one file a format, and the plan that numbers rows."""
