// A doubly linked list through its elements: no allocation, removal in O(1) from an element alone.
//
// An element derives from IntrusiveListNode<Element>. The list owns nothing; an element is in at most one list and must
// leave it before it is destroyed. Thread-compatible.
#ifndef EPIC_STORAGE_INTRUSIVE_LIST_H_
#define EPIC_STORAGE_INTRUSIVE_LIST_H_

#include <cassert>

namespace epic {

template <typename Element>
class IntrusiveList;

template <typename Element>
class IntrusiveListNode {
 private:
  friend class IntrusiveList<Element>;
  IntrusiveListNode* previous_ = nullptr;
  IntrusiveListNode* next_ = nullptr;
};

template <typename Element>
class IntrusiveList {
 public:
  IntrusiveList() { ends_.previous_ = ends_.next_ = &ends_; }
  IntrusiveList(const IntrusiveList&) = delete;
  IntrusiveList& operator=(const IntrusiveList&) = delete;

  bool empty() const { return ends_.next_ == &ends_; }
  // Null where the list is empty.
  Element* front() { return empty() ? nullptr : static_cast<Element*>(ends_.next_); }

  void PushBack(Element& element) {
    IntrusiveListNode<Element>& node = element;
    assert(node.next_ == nullptr);
    node.previous_ = ends_.previous_;
    node.next_ = &ends_;
    node.previous_->next_ = &node;
    ends_.previous_ = &node;
  }
  // REQUIRES: in this list.
  void Remove(Element& element) {
    IntrusiveListNode<Element>& node = element;
    assert(node.next_ != nullptr);
    node.previous_->next_ = node.next_;
    node.next_->previous_ = node.previous_;
    node.previous_ = node.next_ = nullptr;
  }

 private:
  IntrusiveListNode<Element> ends_;
};

}  // namespace epic

#endif  // EPIC_STORAGE_INTRUSIVE_LIST_H_
