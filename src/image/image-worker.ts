throw new Error('the image worker is being written')
