"""Images become tags, boxes, masks, evidence and labels, and labels become layouts, edits and pages."""
