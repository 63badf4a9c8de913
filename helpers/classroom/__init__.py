"""What a class needs around the lessons: a kit without internet, own copies, marks, a website."""
