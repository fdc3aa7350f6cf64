"""Files of labels, one module a format.

What an annotation tool exports is read as marks, which may be boxes, points or pixels
(`pinglow.io.labels.marks`); `pinglow.io.labels.formats` has the table of formats and tells one by
its files. Beside frames in a data folder, boxes of Pascal VOC, YOLO and COCO are read as they are:

A box is (left, top, width, height) in pixels, where pixel i covers [i, i + 1): the same as
``Target.bbox`` and COCO. There is one class, "target"; in a file that is read, every class is one.

======  ===========================  ==========================================================
format  files in a data folder       a box
======  ===========================  ==========================================================
voc     boxes/NAME.xml               xmin, ymin, xmax, ymax: its edges, counted from 1, so that
                                     xmin = left + 1 and xmax = left + width + 1. That is what
                                     SIRST's files hold; the original PASCAL VOC counts its last
                                     pixel in, so that its xmax is smaller by 1
yolo    labels/NAME.txt              class, center x and y, width, height over the frame's size
coco    annotations/SPLIT.json, or   bbox: left, top, width, height; iscrowd 1 makes no
        annotations.json             difference
======  ===========================  ==========================================================

Boxes are rounded to 1e-6 px in reading, so boxes given to 1e-6 px come back as they were. A box
that sticks out of its frame is cut to it; one that is empty or wholly outside is an error, and so
are boxes in another unit: shares of the frame in VOC and COCO, pixels in YOLO.
"""
