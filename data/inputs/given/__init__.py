"""Pictures that are given, with human masks, instead of generated: COCO, ADE20K, PASCAL VOC, or any table."""
