"""One file a form in which a model runs; each has a ``FORM`` (:class:`kdexp.delivery.form.Form`)."""
