INSERT INTO products (sku, name, price_cents, stock) VALUES ('TEA', 'Tea', 450, 10);
INSERT INTO orders (user_id, status, total_cents) SELECT id, 'paid', 900 FROM users;
INSERT INTO order_lines (order_id, product_id, quantity, unit_price_cents)
SELECT orders.id, products.id, 2, 450 FROM orders, products;
