// A copy button on every block of code, and keys for those who do not use a mouse
document.addEventListener('DOMContentLoaded', () => {
  for (const box of document.querySelectorAll('.bd-article div.highlight')) {
    const pre = box.querySelector('pre')
    if (!pre || !navigator.clipboard || box.closest('.cell_output')) continue
    const button = document.createElement('button')
    button.type = 'button'
    button.className = 'copy'
    button.textContent = 'Copy'
    button.setAttribute('aria-label', 'Copy this code')
    button.onclick = async () => {
      await navigator.clipboard.writeText(pre.textContent.trimEnd())
      button.textContent = 'Copied'
      setTimeout(() => { button.textContent = 'Copy' }, 1500)
    }
    box.append(button)
  }
  for (const pre of document.querySelectorAll('.bd-article pre')) if (pre.scrollWidth > pre.clientWidth) pre.tabIndex = 0
  for (const box of document.querySelectorAll('.params')) if (box.scrollWidth > box.clientWidth) box.tabIndex = 0
  // an address that names something folded opens it
  const open = () => {
    const at = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)))
    for (let o = at && at.closest('details'); o; o = o.parentElement.closest('details')) o.open = true
  }
  addEventListener('hashchange', open)
  open()
})
