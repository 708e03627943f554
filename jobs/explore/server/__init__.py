"""The page as a web application: who may ask, what is asked, what is answered."""
